"""What a person types: one module per verb. Each parses, calls `platform`, and prints.

`app.main` is the way in. typer lives only in this room. Nothing here is imported by another room,
and importing it loads neither torch nor ray nor SQL: each verb imports what it needs when it runs.
"""

from vidplat.times import now

ENTERED_AT = now()  # when this process's command was entered, as nearly as Python can know

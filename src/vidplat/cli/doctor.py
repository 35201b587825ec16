"""`vidplat doctor`: is everything here that a run needs?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from vidplat.cli import options, render
from vidplat.cli.request import config_of


def examine_surroundings(
    context: typer.Context,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the catalog's tables up to date.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes seconds to import.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every video and compare its SHA-256.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right where catalog and store differ.")
    ] = False,
    catalog: options.Catalog = None,
    output: options.Output = None,
    model: options.Model = None,
    address: options.Address = None,
    json: options.Json = False,
) -> int:
    """Check that everything a run needs is here. Exit code 1 if a run cannot work."""
    from vidplat.platform.checkup import Health, examine

    config = config_of(context)
    findings = []
    asked = {"migrate": migrate, "quick": quick, "verify": verify, "repair": repair}
    for finding in examine(config, **asked):
        findings.append(finding)
        if not json:
            style = render.STATE_STYLES[finding.health.value]
            render.say_parts(
                (f"{finding.health.value:<5}", style),
                (f"{finding.name:<10}", "bold"),
                (finding.found, ""),
            )
            if finding.todo:
                render.say(f"{'':15}{finding.todo}", style="dim")
            sys.stdout.flush()
    if json:
        render.print_json([asdict(finding) for finding in findings])
    return 1 if any(finding.health is Health.FAIL for finding in findings) else 0

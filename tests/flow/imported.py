"""What a run imports: the process that others are forked from preloads this."""

import vidplat.platform.assemble
import vidplat.platform.dispatch.in_process
import vidplat.platform.dispatch.worker_tools
import vidplat.platform.run.batch_run
import vidplat.scheduler
import vidplat.storage.catalog
import vidplat.storage.local
import vidplat.storage.records
import vidplat.testing  # noqa: F401

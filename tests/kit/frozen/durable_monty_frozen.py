"""An executor plug-in as it was written against durable-monty 0.2. It is never changed: it stands for those out there."""

from pydantic import BaseModel, ConfigDict, Field

from durable_monty import remote
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Failure, Finding, Job, Outcome


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    greeting: str = Field("hello", description="What check says.")


class Executor:
    Settings = Settings
    interface_version = 1
    capabilities = Capabilities(caller_ids=True, max_batch=10, poll_interval_seconds=0.0)

    def __init__(self, settings):
        self.settings = settings
        self.replies = {}

    @hookimpl
    def submit(self, calls):
        for call in calls:
            if call.job_id not in self.replies:
                self.replies[call.job_id] = remote.run(call.envelope)
        return [Accepted(call.job_id, token="t") for call in calls]

    @hookimpl
    def poll(self, jobs):
        lost = Failure("lost", "Lost", "unknown")
        return [
            Outcome(job.job_id, reply=self.replies[job.job_id])
            if job.job_id in self.replies
            else Outcome(job.job_id, failure=lost)
            for job in jobs
        ]

    @hookimpl
    def complete(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.replies.pop(job.job_id, None)

    @hookimpl
    def check(self):
        return [Finding("info", self.settings.greeting)]

"""An executor whose jobs start Snakemake again, as on a cluster, without a cluster."""

from pathlib import Path

# Snakemake finds the plugin in the working directory. Before each job it runs `before-job.sh`, if there is one.
PLUGIN = """
import os
import subprocess

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


class Executor(RemoteExecutor):
    def run_job(self, job):
        if os.path.exists("before-job.sh"):
            subprocess.run(["sh", "before-job.sh"], check=True)
        with open("jobs.log", "a") as log:
            process = subprocess.Popen(self.format_job_exec(job), shell=True, stdout=log, stderr=log)
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=str(process.pid), aux={"process": process}))

    async def check_active_jobs(self, active_jobs):
        for job in active_jobs:
            status = job.aux["process"].poll()
            if status is None:
                yield job
            elif status == 0:
                self.report_job_success(job)
            else:
                self.report_job_error(job)

    def cancel_jobs(self, active_jobs):
        for job in active_jobs:
            job.aux["process"].terminate()
"""
OPTIONS = ("--executor", "children", "--jobs", "2", "--seconds-between-status-checks", "1", "--latency-wait", "5")


def add_executor(folder: Path, before_job: str) -> None:
    """Add the plugin to a folder, and a command of the shell that runs there before each job."""
    package = folder / "snakemake_executor_plugin_children"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text(PLUGIN)
    (folder / "before-job.sh").write_text(f"{before_job}\n")

"""OpenLineage events of a run, and the transport that sends them: HTTP, or a file of one JSON object a line.

Only barflow.pipeline.lineage imports this module, when a run reports its lineage. It calls the transports and not
OpenLineage's client, which reads further settings from variables and from files of the working folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunEvent, RunState
from openlineage.client.event_v2 import Run as EventRun
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    JobFacet,
    OutputDatasetFacet,
    RunFacet,
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    tags_run,
)
from openlineage.client.transport.file import FileConfig, FileTransport
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

from barflow import __version__
from barflow.pipeline.lineage import REQUEST_SECONDS, Columns, Count, Datasets, Event, Run
from barflow.secrets import resolve
from barflow.settings import Settings

PRODUCER = f"urn:barflow:{__version__}"


class Emitter:
    """Builds and sends the events of one run."""

    def __init__(self, run: Run) -> None:
        """Name the datasets, with the secrets that the hop itself reads. Raise as those do."""
        self.run = run
        self.datasets = run.job.datasets(run.settings)
        self._columns: dict[str, Columns] = {}

    def send(self, event: Event) -> None:
        """Send one event. Raise what fails: the caller reports it.

        An event whose columns or counts cannot be read is sent without them, before that error is raised.
        """
        problems: list[Exception] = []
        with _kept(problems):
            self._read_columns()
        counts: Mapping[str, Count] = {}
        if event.state == "COMPLETE" and event.report is not None:
            with _kept(problems):
                counts = self.run.job.counts(self.run.settings, event.report)
        _transport(self.run.settings).emit(run_event(self.run, event, self.datasets, self._columns, counts))
        if problems:
            raise problems[0]

    def _read_columns(self) -> None:
        for key, dataset in {**self.datasets.inputs, **self.datasets.outputs}.items():
            if key not in self._columns:
                self._columns[key] = dataset.columns()


@contextmanager
def _kept(problems: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        problems.append(error)


def _transport(settings: Settings) -> HttpTransport | FileTransport:
    """Return the transport of BARFLOW_OPENLINEAGE_URL. One request, without retries."""
    url = settings.openlineage_url or ""
    if not url.startswith("http"):
        return FileTransport(FileConfig(log_file_path=url, append=True))
    key = settings.openlineage_api_key
    auth = ApiKeyTokenProvider({"apiKey": resolve(key, "BARFLOW_OPENLINEAGE_API_KEY")}) if key else TokenProvider({})
    return HttpTransport(HttpConfig(url=url, auth=auth, timeout=REQUEST_SECONDS, retry={"total": 0}))


def run_event(
    run: Run, event: Event, datasets: Datasets, columns: Mapping[str, Columns], counts: Mapping[str, Count]
) -> RunEvent:
    """Return the event with its facets: the columns and counts of the datasets are by key."""
    return RunEvent(
        eventType=RunState[event.state],
        eventTime=event.at.isoformat(),
        run=EventRun(run.uuid, facets=_run_facets(run, event)),
        job=Job(run.namespace, run.job.name, facets=_job_facets(run)),
        inputs=[
            InputDataset(
                item.namespace, item.name, facets=_schema(columns.get(key)), inputFacets=_read(counts.get(key))
            )
            for key, item in datasets.inputs.items()
        ],
        outputs=[
            OutputDataset(
                item.namespace, item.name, facets=_schema(columns.get(key)), outputFacets=_written(counts.get(key))
            )
            for key, item in datasets.outputs.items()
        ],
        producer=PRODUCER,
    )


def _run_facets(run: Run, event: Event) -> dict[str, RunFacet]:
    run_id = tags_run.TagsRunFacetFields(key="run_id", value=run.run_id, source="BARFLOW")
    found: dict[str, RunFacet] = {"tags": tags_run.TagsRunFacet(tags=[run_id], producer=PRODUCER)}
    if run.parent:
        found["parent"] = _parent(run.parent)
    if event.error:
        found["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=event.error, programmingLanguage="PYTHON", producer=PRODUCER
        )
    if event.state != "START":
        found["processing_engine"] = _engine()
    return found


def _engine() -> RunFacet:
    """Return Spark if this process has used it, else Barflow."""
    spark = getattr(sys.modules.get("pyspark"), "__version__", None)
    return processing_engine_run.ProcessingEngineRunFacet(
        name="spark" if spark else "barflow",
        version=spark or __version__,
        openlineageAdapterVersion=__version__,
        producer=PRODUCER,
    )


def _parent(text: str) -> RunFacet:
    """Return the facet of a parent run and its root, written as parse_parent describes."""
    (namespace, name, run_id), root = (item.rsplit("/", 2) for item in (text.split(",") * 2)[:2])
    return parent_run.ParentRunFacet(
        run=parent_run.Run(run_id),
        job=parent_run.Job(namespace, name),
        root=parent_run.Root(run=parent_run.RootRun(root[2]), job=parent_run.RootJob(root[0], root[1])),
        producer=PRODUCER,
    )


def _job_facets(run: Run) -> dict[str, JobFacet]:
    return {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="BARFLOW", jobType="JOB", producer=PRODUCER
        ),
        "documentation": documentation_job.DocumentationJobFacet(description=run.job.description, producer=PRODUCER),
    }


def _schema(columns: Columns | None) -> dict[str, DatasetFacet]:
    if not columns:
        return {}
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=name, type=kind, description=meaning or None)
        for name, kind, meaning in columns
    ]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields, producer=PRODUCER)}


def _read(count: Count | None) -> dict[str, InputDatasetFacet]:
    facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    return {} if count is None else {"inputStatistics": facet(rowCount=count.rows, producer=PRODUCER)}


def _written(count: Count | None) -> dict[str, OutputDatasetFacet]:
    if count is None:
        return {}
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return {"outputStatistics": facet(rowCount=count.rows, fileCount=count.files, producer=PRODUCER)}

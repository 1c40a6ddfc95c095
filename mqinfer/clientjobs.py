"""The jobs of a client: an endpoint asked for every row of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer import wiring
from mqinfer.errors import ConfigurationError
from mqinfer.jobs.accepting import KEEP, LASTS, Terms
from mqinfer.jobs.job import Job
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.jobs.jobs import Jobs
    from mqinfer.jobs.source import Named
    from mqinfer.worker.services import Services

MOST = 5_000  # rows that one may ask a chunk to have


class ClientJobs:
    """The part of `Client` that submits jobs."""

    app: App
    _services: Services
    _codec: Codec
    _jobs: Jobs | None = None

    async def submit(
        self,
        endpoint: str,
        source: Named,
        *,
        format: str | None = None,  # noqa: A002 - the word users know
        key: str | None = None,
        tenant: str = "",
        max_failures: int | None = None,
        deadline: float | str = LASTS,
        keep: float | str = KEEP,
        chunk: int | None = None,
    ) -> Job:
        """Ask an endpoint for every row of a source, and have a `Job` once all are stored.

            job = await client.submit("grade", "photos.csv")

        Args:
            endpoint: its name.
            source: a file (CSV, JSONL, Parquet) or a folder of pictures here, `blob:path` of a file
                or `blob:prefix/` of pictures in the blob store, or messages, or mappings of their
                fields.
            format: of a file: "csv", "jsonl" or "parquet"; None is what its name ends in.
            key: submitted again under the same key, it is the same job, for as long as it is kept.
                None is a new one.
            tenant: on whose behalf; a job is found under the same only.
            max_failures: the job is stopped once more rows than these have failed; None never.
            deadline: after which it ends, whatever came of it (seconds or "24h").
            keep: how long it is kept after that (seconds or "7d").
            chunk: rows that are handled and stored together, at most; None lets mqinfer choose.

        Raises:
            ConfigurationError: there is no such endpoint, or the source cannot be read as a whole;
                what is wrong with one row is an error of that row.
            RequestConflict: the key was used for something else.
            BlobError: the blob store refuses.
            Unavailable: it, or NATS, does not answer; submit again under the same key.
        """
        if max_failures is not None and max_failures < 0:
            raise ConfigurationError(f"max_failures={max_failures} must be 0 or more")
        if chunk is not None and not 1 <= chunk <= MOST:
            raise ConfigurationError(f"chunk={chunk} must be 1 to {MOST:,} rows")
        lasts, kept = parse_duration(deadline), parse_duration(keep)
        if lasts <= 0 or kept < 1:
            raise ConfigurationError(
                f"deadline={deadline!r} must be more than 0, and keep={keep!r} a second at least"
            )
        jobs = await self.bulk()
        state, replayed = await jobs.submit(
            endpoint,
            source,
            form=format,
            key=key,
            tenant=tenant,
            terms=Terms(max_failures, lasts, kept, chunk),
        )
        return Job(jobs, state, self._codec, replayed=replayed)

    async def job(self, id: str, *, tenant: str = "") -> Job:  # noqa: A002
        """A job by its id, from whatever process it was submitted.

        Raises:
            JobUnknown: there is none: it is forgotten, or there never was one.
            Unavailable: NATS does not answer.
        """
        jobs = await self.bulk()
        return Job(jobs, await jobs.get(id, tenant=tenant), self._codec)

    async def jobs(self, endpoint: str | None = None, *, tenant: str = "") -> list[Job]:
        """The jobs that are kept, of all endpoints or of one, those that changed last at the end.

        Raises:
            Unavailable: NATS does not answer.
        """
        jobs = await self.bulk()
        found = await jobs.listed(endpoint, tenant=tenant)
        return [Job(jobs, state, self._codec) for state in found]

    async def bulk(self) -> Jobs:
        """The jobs of the app, for who handles payloads rather than messages.

        Raises:
            ConfigurationError: the app has no endpoint.
            Unavailable: NATS does not answer.
        """
        if self._jobs is None:
            services = self._services
            if (
                not self.app.endpoints
                or services.core is None
                or services.streams is None
                or services.store is None
            ):
                raise ConfigurationError(
                    f"app {self.app.name} has no endpoint: declare one with app.endpoint(...)"
                )
            jobs = wiring.jobs(self.app, services, self._codec)
            await jobs.ensure()
            self._jobs = jobs
        return self._jobs

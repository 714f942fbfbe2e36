"""What an operator may set about documents."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import PlexusSettings


class IngestSettings(PlexusSettings):
    """Documents: how many, and what reading one may take."""

    ingest_parsers: int = Field(
        2, ge=1, le=64, description="How many documents one process reads at one time."
    )
    ingest_parser_memory: int = Field(
        1_073_741_824,
        ge=268_435_456,
        le=68_719_476_736,
        description="The memory that reading one may take, in bytes of address space.",
    )
    ingest_parser_seconds: float = Field(
        120.0,
        ge=2,
        le=3600,
        description="How long reading one may take; a small one is given less of the processor's "
        "time, 2 seconds and one for each 50 kB.",
    )
    ingest_fetch_seconds: float = Field(
        120.0, ge=1, le=3600, description="How long fetching one from its address may take."
    )
    ingest_fetch_bytes: int = Field(
        104_857_600,
        ge=1024,
        le=1_073_741_824,
        description="How many bytes are fetched from an address.",
    )
    ingest_max_documents: int = Field(
        100_000, ge=1, le=10_000_000, description="How many documents a tenant may have."
    )
    ingest_max_bytes: int = Field(
        53_687_091_200,
        ge=1_048_576,
        le=2**62,
        description="How many bytes the documents of a tenant may have, in all.",
    )
    ingest_upload_hours: float = Field(
        24.0,
        gt=0,
        le=720,
        description="How long an upload is kept that nobody goes on with.",
    )
    ingest_folders: str = Field(
        "",
        description="Folders of this machine that sources may look at, with colons between them; "
        "empty: none.",
    )

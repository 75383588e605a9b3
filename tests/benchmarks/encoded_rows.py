"""Encoded rows of a snapshot, or of files beside one, as arrays: what peers of the model learn from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from models.columns import Arrays, Columns
from models.manifest import Manifest


def read_encoded(files: Path | list[Path], manifest: Manifest) -> tuple[Arrays, pd.DataFrame]:
    """In the layout of the manifest's template; and all columns as they are."""
    found = pq.read_table(files).to_pandas()
    columns = Columns(manifest.template, len(manifest.towers))
    return columns.arrays({name: found[name].to_numpy() for name in found}), found

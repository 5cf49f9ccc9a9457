"""Files and rows: raw datasets in, parquet in TRL's columns out. Never imports torch or trl."""

from trl_onevision.data.adapters import adapter_for
from trl_onevision.data.convert import Conversion, convert_row
from trl_onevision.data.images import PixelGrid, decode_image, store_image
from trl_onevision.data.schema import RowError, features, validate_row
from trl_onevision.data.videos import Sampling, Video, store_video
from trl_onevision.data.writer import OutputExists, write_dataset

__all__ = [
    "Conversion",
    "OutputExists",
    "PixelGrid",
    "RowError",
    "Sampling",
    "Video",
    "adapter_for",
    "convert_row",
    "decode_image",
    "features",
    "store_image",
    "store_video",
    "validate_row",
    "write_dataset",
]

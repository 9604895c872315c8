"""The dataparser `lpm-data` as nerfstudio's commands find it.

Apart from lpm.plugin.config: nerfstudio loads dataparsers while its own trainer is not importable yet.
"""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from lpm.plugin.dataparser import LpmDataParserConfig

lpm_data = DataParserSpecification(
    config=LpmDataParserConfig(), description="transforms.json, COLMAP or Blender, recognised by what is in the folder"
)

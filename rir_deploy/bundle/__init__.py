"""The one file that goes to a device: graphs, engines, golden images and what they gave, under one index."""

from rir_deploy.bundle.archive import pack, unpack
from rir_deploy.bundle.index import Bounds, Golden, Index, Item, Member
from rir_deploy.bundle.opened import Bundle, open_bundle

__all__ = ["Bounds", "Bundle", "Golden", "Index", "Item", "Member", "open_bundle", "pack", "unpack"]

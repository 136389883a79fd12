"""Where a catalogue comes from: prefixes of S3, an inventory, a list of keys or a folder, all with the same pages of objects."""

from connectors.catalogue.folder import FolderListing
from connectors.catalogue.inventory import S3Inventory
from connectors.catalogue.key_list import KeyList
from connectors.catalogue.listing import S3Listing
from connectors.catalogue.several import SeveralSources
from connectors.catalogue.source import Outline, Page, Source

__all__ = ["FolderListing", "KeyList", "Outline", "Page", "S3Inventory", "S3Listing", "SeveralSources", "Source"]

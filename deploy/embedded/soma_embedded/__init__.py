"""The real stores and both Soma servers on one machine, out of Python wheels: what `soma up` starts."""

from soma_embedded.child import State as State
from soma_embedded.errors import AddressInUseError as AddressInUseError
from soma_embedded.errors import DirectoryInUseError as DirectoryInUseError
from soma_embedded.errors import DirectoryUnusableError as DirectoryUnusableError
from soma_embedded.errors import EmbeddedError as EmbeddedError
from soma_embedded.errors import EngineMissingError as EngineMissingError
from soma_embedded.errors import StartError as StartError
from soma_embedded.stack import EmbeddedStack as EmbeddedStack
from soma_embedded.stack import StackSettings as StackSettings
from soma_embedded.stores import EmbeddedStores as EmbeddedStores

__all__ = [
    "AddressInUseError",
    "DirectoryInUseError",
    "DirectoryUnusableError",
    "EmbeddedError",
    "EmbeddedStack",
    "EmbeddedStores",
    "EngineMissingError",
    "StackSettings",
    "StartError",
    "State",
]

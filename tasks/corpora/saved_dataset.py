"""Find the files of a folder that `save_to_disk` of the library `datasets` wrote."""

from typing import TypedDict

from etils import epath

from electra_jax.errors import UserError
from electra_jax.json_files import read_json

_SPLITS, _STATE = "dataset_dict.json", "state.json"
_REMEDY = "save the data set again"


class _Splits(TypedDict):
    splits: list[str]


class _File(TypedDict):
    filename: str


class _State(TypedDict):
    _data_files: list[_File]


def saved_dataset_files(folder: epath.Path) -> list[epath.Path] | None:
    """Return the Arrow files of a saved data set, of its split "train" if it has splits; None for any other folder.

    Raises:
        UserError: if it has splits, but none of that name, or its files alone do not give the order of the rows.
    """
    if (folder / _SPLITS).exists():
        splits = read_json(folder / _SPLITS, _Splits, remedy=_REMEDY)["splits"]
        if "train" not in splits:
            raise UserError(
                f"{folder} is a data set with the splits {', '.join(splits)}: name the folder of one, such as "
                f"{folder / splits[0] if splits else folder}."
            )
        folder = folder / "train"
    if not (folder / _STATE).exists():
        return None
    state = read_json(folder / _STATE, _State, remedy=_REMEDY)
    if state.get("_indices_files"):
        raise UserError(f"{folder} was saved with a mapping of its rows: call flatten_indices() before save_to_disk.")
    paths = [folder / file["filename"] for file in state["_data_files"]]
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise UserError(f"{folder} lacks {missing.name}, which its {_STATE} names: copy the folder again.")
    return paths

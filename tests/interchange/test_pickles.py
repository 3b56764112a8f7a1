"""Read pytorch_model.bin without PyTorch and without running code; both formats are written here by hand."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from electra_jax.cli import main
from electra_jax.interchange import tensors
from electra_jax.interchange.tensors import Storage, View
from support.hf_models import discriminator_in, refusal


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return discriminator_in(tmp_path)


class TestPickles:
    def zipped(self, path: Path, stored: dict[str, np.ndarray]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", dump(stored))
            for name, value in stored.items():
                archive.writestr(f"archive/data/{name}", np.ascontiguousarray(value).tobytes())

    def legacy(self, path: Path, stored: dict[str, np.ndarray]) -> None:
        with path.open("wb") as file:
            for value in (tensors.LEGACY_MAGIC, 1001, {"little_endian": True}):
                pickle.dump(value, file, protocol=2)
            file.write(dump(stored))
            pickle.dump(list(stored), file, protocol=2)
            for value in stored.values():
                file.write(value.size.to_bytes(8, "little") + np.ascontiguousarray(value).tobytes())

    @pytest.mark.parametrize("form", ["zipped", "legacy"])
    def test_gives_the_same_model(self, form: str, source: Path, tmp_path: Path) -> None:
        stored = load_file(source / "model.safetensors")
        (source / "model.safetensors").unlink()
        getattr(self, form)(source / "pytorch_model.bin", stored)
        assert main(["import", str(source), str(tmp_path / "model")]) == 0
        assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
        after = load_file(tmp_path / "out" / "model.safetensors")
        assert {name: value.tobytes() for name, value in stored.items()} == {
            name: value.tobytes() for name, value in after.items()
        }

    def test_runs_nothing(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (source / "model.safetensors").unlink()
        witness = tmp_path / "executed"

        class Evil:
            def __reduce__(self) -> tuple:
                return os.mkdir, (str(witness),)

        path = source / "pytorch_model.bin"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"weight": Evil()}))
        assert "posix.mkdir" in refusal(capsys, "import", source, tmp_path / "model")
        path.write_bytes(pickle.dumps(Evil()))
        assert "posix.mkdir" in refusal(capsys, "import", source, tmp_path / "model")
        assert not witness.exists()
        assert not (tmp_path / "model").exists()

    def test_what_is_no_state_dict(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (source / "model.safetensors").unlink()
        path = source / "pytorch_model.bin"
        path.write_bytes(b"not a pickle at all")
        assert "pytorch_model.bin" in refusal(capsys, "import", source, tmp_path / "model")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 3}))
        assert "epoch" in refusal(capsys, "import", source, tmp_path / "model")

    def test_small_files_of_huge_tensors(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Compressed zeros, one number repeated, and one storage under many names would fill the memory."""
        (source / "model.safetensors").unlink()
        path = source / "pytorch_model.bin"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", dump({"weight": np.zeros(1, np.float32)}))
            archive.writestr("archive/data/weight", bytes(4_000_000))
        assert "unpacks to 4,000," in refusal(capsys, "import", source, tmp_path / "model")
        repeated = np.broadcast_to(np.float32(1), (2,))
        views = {"repeated": View(Storage("0", np.dtype(np.float32)), 0, (10**9, 10**9), (0, 0))}
        with pytest.raises(ValueError, match="the numbers of repeated are cut off, or repeated"):
            tensors.check_size(list(views.items()), {"0": repeated.tobytes()})
        view = View(Storage("0", np.dtype(np.float32)), 0, (2,), (1,))
        tensors.check_size([(str(number), view) for number in range(8)], {"0": repeated.tobytes()})
        with pytest.raises(ValueError, match="the same numbers more than 8 times"):
            tensors.check_size([(str(number), view) for number in range(9)], {"0": repeated.tobytes()})

    def test_cut_off(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stored = load_file(source / "model.safetensors")
        (source / "model.safetensors").unlink()
        self.legacy(source / "pytorch_model.bin", stored)
        whole = (source / "pytorch_model.bin").read_bytes()
        (source / "pytorch_model.bin").write_bytes(whole[:-100])
        assert "cut off" in refusal(capsys, "import", source, tmp_path / "model")


class _Global:
    """Pickle as a global name of a module that is not installed."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _StateDictPickler(pickle._Pickler):
    """Write torch's names as torch.save does, without torch."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_global_name(self, value: _Global) -> None:
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    dispatch[_Global] = save_global_name

    def save_tensor(self, value: "_Tensor") -> None:
        strides = tuple(stride // value.array.itemsize for stride in value.array.strides)
        self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.save(("storage", _Global("torch", "FloatStorage"), value.name, "cpu", value.array.size))
        self.write(pickle.BINPERSID)
        for part in (0, value.array.shape, strides, False, OrderedDict()):
            self.save(part)
        self.write(pickle.TUPLE + pickle.REDUCE)


class _Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, np.ascontiguousarray(array)


_StateDictPickler.dispatch[_Tensor] = _StateDictPickler.save_tensor


def dump(stored: dict[str, np.ndarray]) -> bytes:
    """Return the pickle of a state dict of float32 tensors, each with a storage of the same name."""
    file = io.BytesIO()
    _StateDictPickler(file, protocol=2).dump(
        OrderedDict((name, _Tensor(name, value)) for name, value in stored.items())
    )
    return file.getvalue()

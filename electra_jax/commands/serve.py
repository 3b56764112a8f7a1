"""`electra serve MODEL_DIR`: a model's answers over HTTP, and a page to try it on."""

import argparse
import importlib
import ipaddress
import sys

import electra_jax
from electra_jax.config.serving import ServingRun
from electra_jax.errors import UserError
from electra_jax.runtime import keep_compilations

LIBRARIES = ("starlette", "uvicorn", "prometheus_client")


def run(configuration: ServingRun, options: argparse.Namespace) -> None:
    """Serve a model until Ctrl-C or SIGTERM, after everything that requests may need is compiled.

    Raises:
        UserError: if the model cannot be read or reads no text, the address is not available, or the extra `serve` is
            not installed.
    """
    # The model on the command line is already part of the configuration.
    del options
    for library in LIBRARIES:
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            raise UserError(
                f"electra serve needs {error.name}, which is not installed: install electra-jax[serve]"
            ) from error
    from electra_jax.serving.application import make_application
    from electra_jax.serving.server import bound_socket, serve_until_stopped, url_of
    from electra_jax.serving.warm_up import served_shapes, warm_up

    keep_compilations()
    model = electra_jax.load(configuration.model_dir)
    _ = model.pieces
    with bound_socket(configuration.host, configuration.port) as server:
        shapes = served_shapes(model, configuration.max_batch_size)
        print(f"compiling {len(shapes)} shapes of batches, up to {' x '.join(map(str, shapes[-1]))} tokens", flush=True)
        warm_up(model, shapes)
        # From now on connections wait, and none is refused.
        server.listen()
        if not ipaddress.ip_address(server.getsockname()[0]).is_loopback:
            print(
                f"note: whoever reaches {configuration.host} may use the model: there is no password", file=sys.stderr
            )
        print(f"serving {configuration.model_dir} at {url_of(server)}; Ctrl-C or SIGTERM ends it", flush=True)
        serve_until_stopped(make_application(model, configuration), server)
    print("stopped", flush=True)

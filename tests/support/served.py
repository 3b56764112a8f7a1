"""What the tests of `electra serve` serve, and how."""

from electra_jax.config.serving import ServingRun

LABELS = ("bad", "<b>fair</b>", "good")
CHOICES = {"text": "the dog ran home", "text_pair": "who ran?", "choices": ["the cat", "the dog"]}
RUN = ServingRun(
    model_dir="runs/<one>",
    host="127.0.0.1",
    port=0,
    text_column=None,
    text_b_column=None,
    id_column="id",
    max_batch_size=2,
    max_wait_ms=0.0,
    max_body_bytes=2000,
    max_body_seconds=30.0,
    max_inputs=3,
    max_queue=3,
)

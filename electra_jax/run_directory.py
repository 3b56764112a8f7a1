"""The names of the files that a run leaves in its MODEL_DIR."""

# Written by every run.
CONFIG = "config.gin"  # the resolved Gin configuration, which runs the same again
EARLIER_CONFIG = "config.{}.gin"  # those of earlier starts that were configured otherwise, the first one 1
RUN = "run.json"  # what ran it: command, machine, versions, facts of the run
METRICS = "metrics.jsonl"  # a line for every report of metrics
CHECKPOINTS = "checkpoints"  # one directory per saved step
REPORT = "report.html"  # the page about the run
LOCK = "run.lock"  # who writes here now

# Written by `electra pretrain`, `electra import`, `electra finetune` and T5X's recipes, beside CHECKPOINTS.
MODEL = "model.json"  # what the model is made of
VOCABULARY = "vocab.txt"  # its WordPiece vocabulary, or
TOKENIZER = "tokenizer.json"  # its tokenizer, with special_tokens_map.json

# Written by `electra import` beside a fine-tuned model, whose CONFIG would be that of a fine-tuning.
CONTINUED = "pretrain.gin"  # its sizes, and a recipe to pre-train it further

# Written by `electra evaluate` and `electra predict`.
EVALUATION = "evaluation.json"  # metrics of the whole held-out split, or of a task's
PAIRS = "minimal_pairs.json"  # what a pre-trained model says of minimal pairs
PROMPT_SCORES = "prompt.json"  # how a pre-trained model classifies by a prompt
PREDICTIONS_FOLDER = "predictions"  # a leaderboard's files

# Written by `electra finetune`.
RESULTS = "results.json"  # scores of every seed and their summary
PREDICTIONS = "predictions.jsonl"  # the best seed's answers on the split that is reported
SEEDS = "seeds"  # one directory per seed, a run directory of its own, with
KEPT = "best"  # its checkpoint that counts, a model directory
SEED_RESULT = "result.json"  # and its scores
FOLDS = "folds"  # of a cross-validation one directory per fold, a MODEL_DIR of its own

# Written by `electra compare`.
COMPARISON = "comparison.json"  # everything that the page and the figure show
FIGURE = "comparison.svg"  # score against FLOPs
ITEMS_LOCK = "items.lock"  # held by the processes that it started

# Written by `electra sweep`, beside CONFIG and ITEMS_LOCK.
TRIALS = "trials"  # one directory per trial, a MODEL_DIR of its own, beside its configuration, record and log
TRIALS_RECORD = "trials.json"  # the values and scores of each trial, and which one is chosen
BEST_CONFIG = "best.gin"  # its configuration, for `electra finetune`

"""Name the files that a run leaves in its MODEL_DIR."""

# Written by every run.
CONFIG = "config.gin"  # the resolved Gin configuration, which repeats the run
EARLIER_CONFIG = "config.{}.gin"  # those of earlier starts with other settings, numbered from 1
RUN = "run.json"  # how it was run: command, machine, versions, facts of the run
METRICS = "metrics.jsonl"  # a line for every report of metrics
CHECKPOINTS = "checkpoints"  # one directory per saved step
REPORT = "report.html"  # the page about the run
LOCK = "run.lock"  # the process that is writing here now

# Written by `electra pretrain`, `electra import`, `electra finetune` and T5X's recipes, next to CHECKPOINTS.
MODEL = "model.json"  # the model's kind, sizes, head and labels
VOCABULARY = "vocab.txt"  # its WordPiece vocabulary, or
TOKENIZER = "tokenizer.json"  # its tokenizer, with special_tokens_map.json

# Written by `electra import` next to a fine-tuned model, whose CONFIG would be that of a fine-tuning.
CONTINUED = "pretrain.gin"  # its sizes, and a recipe to pre-train it further

# Written by `electra evaluate` and `electra predict`.
EVALUATION = "evaluation.json"  # metrics of the whole held-out split, or of a task's
PAIRS = "minimal_pairs.json"  # scores of a pre-trained model on minimal pairs
PROMPT_SCORES = "prompt.json"  # scores of a pre-trained model that classifies by a prompt
PREDICTIONS_FOLDER = "predictions"  # a leaderboard's files

# Written by `electra finetune`.
RESULTS = "results.json"  # scores of every seed and their summary
PREDICTIONS = "predictions.jsonl"  # the best seed's answers on the reported split
SEEDS = "seeds"  # one directory per seed, a run directory of its own, with
KEPT = "best"  # its selected checkpoint, a model directory
SEED_RESULT = "result.json"  # and its scores
FOLDS = "folds"  # in a cross-validation, one directory per fold, a MODEL_DIR of its own

# Written by `electra compare`.
COMPARISON = "comparison.json"  # everything that the page and the figure show
FIGURE = "comparison.svg"  # score against FLOPs
ITEMS_LOCK = "items.lock"  # held by the processes that it started

# Written by `electra sweep`, next to CONFIG and ITEMS_LOCK.
TRIALS = "trials"  # one directory per trial, a MODEL_DIR of its own, next to its configuration, record and log
TRIALS_RECORD = "trials.json"  # the values and scores of each trial, and which one is chosen
BEST_CONFIG = "best.gin"  # its configuration, for `electra finetune`

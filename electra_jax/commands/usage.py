"""What `electra COMMAND --help` says of the input of a command."""

PREDICT_USAGE = """\
electra predict MODEL_DIR [INPUT]                    the first argument is the model, unless MODEL_DIR is bound:
electra predict --gin.MODEL_DIR='"runs/x"' [INPUT]   the same
electra predict --gin.MODEL_DIR='"runs/x"' --gin.SPLIT='"test"'
                                                     a whole split of the model's task, and the leaderboard's files

INPUT is a file if there is one of that name, standard input if it is - or left out, and otherwise the text itself. Each
input gives one record, in order: its `index` from 0, its `id` where it has one (ID_COLUMN), and the answer; or an
`error`, after which the job goes on.

  a .csv or .tsv     columns as in training, TEXT_COLUMN (or "text") and TEXT_B_COLUMN (or "text_pair"); or those of
                     question answering, "question" and "context"
  a .jsonl           a JSON value a line, see below
  an .npz            arrays of token ids
  any other file     a text a line, whatever it begins with; JSON where the model reads no plain text
  standard input     a line at a time, as it comes: JSON objects and lists, and every other line a text

  {"text": "a sentence"}  or  "a sentence"           any model that reads text
  {"text": "a sentence", "text_pair": "another"}     a pair
  {"question": "...", "context": "..."}              question answering
  {"words": ["a", "sentence"]}                       tagging
  {"input_ids": [2, 9, 3]}  or  [2, 9, 3]            token ids, and attention_mask, token_type_ids

A fine-tuned model answers as its task does; a pre-trained one says which tokens were replaced (and fills in [MASK]);
for token ids every model gives its logits.
"""

EMBED_USAGE = """\
electra embed MODEL_DIR [INPUT]

INPUT is a file if there is one of that name, standard input if it is - or left out, and otherwise the text itself; see
electra predict --help. Each text gives one record, in order: its `index` from 0, its `id` where it has one, and its
`vector`; or an `error` (in a .npy a row of NaN), after which the job goes on.
"""

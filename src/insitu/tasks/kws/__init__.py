"""The embedded default: ten spoken keywords.  Weights, test maps, WAVs and the card; `task.yaml` names them."""

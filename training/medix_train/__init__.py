"""Train medical language models with the judges and scorers that evaluate them."""

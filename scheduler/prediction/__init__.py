"""Prediction: how long answers will be and how long packs will take, learned from those that ran."""

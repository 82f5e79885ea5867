"""Looking ahead: forecasts of regular series, what is unlike what was forecast, and what a month comes to."""

"""Training of attribute classifiers, judges and regressors."""

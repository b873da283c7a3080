"""A demonstration on scikit-learn's digits: train two small models and check their objectives against the evidence."""

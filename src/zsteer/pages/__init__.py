"""A generator and a judge as one page that needs no Python: it opens from disk, in any browser."""

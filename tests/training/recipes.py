"""A recipe that trains in seconds: a coarse grid, few samples, a thin network."""

QUICK_RECIPE = """
[network]
group = "trivial"
fields = [2, 2]
pool_after = [1]
[input]
spacing_mm = 3.0
side = 16
[samples]
spacing_mm = 3.0
side = 24
candidates_per_scan = 40
transplants_per_scan = 4
shams_per_scan = 2
[train]
steps = 4
batch_size = 4
validate_every = 20
"""

"""What the package achieves, and what it costs, room by room; each benchmark is one command, from whatever folder.

    python benchmarks/paper/table1.py [--quick]

    paper       tables of the paper, and of those it builds on
    posteriors  posteriors and evidence against truths in closed form, or on average over the prior
    sculpting   compositional sculpting, of discs and of coloured digits, with classifiers and without
    peers       the digits density beside other density models
    any_model   networks from elsewhere as densities: conventions, outputs, samples
    tempering   replica exchange beside annealing, and new data added to finished runs
    speed       seconds and memory: beside what is needed, beside what one would write instead
    faults      kills, disks, damaged files, failing energies, and whatever users try
    train       not benchmarks: how the densities and the classifiers that ship with the package are trained

`same_results.py` and `versions.py` compare two versions of the package: their results, and their speed.

Parts are shared by their full names, as in `from benchmarks.table import measure`: where the package is installed to
be edited (`make`, or `pip install -e .`), Python finds this folder as it finds the package. Tables are in results/.
"""

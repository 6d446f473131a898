"""Planted mutants: patches to the shipped files, each of which breaks a promise. The simulation has to catch every one.

``python -m tests.simulation.mutants`` applies each to a copy of the tree and runs seeds until an invariant does not
hold; ``--tests`` proves that the unit tests do not notice. The first lines of a patch say what it breaks. One that no
longer applies is made anew: change the file, ``git diff -U2 > tests/simulation/mutants/NAME.patch``, undo the change.

To come with their rules: a brown-out that convicts, a host that is sick, a probe that is poisoned.
"""

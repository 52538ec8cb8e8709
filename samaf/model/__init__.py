"""The training side: the network, its losses, the rendered corpus and the export of weights.

Only this room imports Keras and TensorFlow (``pip install samaf[train]``), and nothing at run time imports it.
"""

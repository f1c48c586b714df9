"""Random graphs of faces, their connected components by networkx, and settings that cut them."""

import networkx as nx
import numpy as np

from faceclust_spark.config import CoarseGroupsConfig
from faceclust_spark.kernels.forest import Edges

THRESHOLDS = np.array([0.3, 0.45, 0.6], np.float32)


def config(max_size=10**6, **changes):
    return CoarseGroupsConfig(max_size=max_size, **changes)


def random_graph(seed, faces=120, per_face=2.5):
    """Draw a graph with hubs and ties, of cosines on both sides of all thresholds."""
    generator = np.random.default_rng(seed)
    ids = np.sort(generator.choice(10**15, faces, replace=False))
    ends = np.sort((generator.random((2, int(faces * per_face))) ** 1.5 * faces).astype(int), axis=0)
    code = generator.permutation(np.unique(ends[0] * faces + ends[1]))
    a, b = code // faces, code % faces
    cosine = np.round(generator.uniform(0.2, 0.95, len(code)), 2 if seed % 2 else 6).astype(np.float32)
    apart = a < b
    return ids, Edges(ids[a[apart]], ids[b[apart]], cosine[apart])


def components(ids, edges, threshold):
    graph = nx.Graph()
    graph.add_nodes_from(ids.tolist())
    kept = edges.cosine >= threshold
    graph.add_edges_from(zip(edges.first[kept].tolist(), edges.second[kept].tolist(), strict=True))
    return list(nx.connected_components(graph))

"""Training of the graph convolution on labelled galleries; plain torch, no Spark."""

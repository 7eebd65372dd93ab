"""The demo of predictions: a pretrained network names what is on photographs, while they stream by."""

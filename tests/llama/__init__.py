"""llama.cpp's server with a model of a few kilobytes: a model server of others' making."""

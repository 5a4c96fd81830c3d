"""Networks trained on synthetic faces: made by `fmanet pretrain`, two of them shipped in this folder.

model_folder.py   what a model folder holds; which shards a model fits; the shipped ones
samples.py        samples of `flowkit synth --level flow` as clips
pretraining.py    a network trained on them, with a temperature found on people set aside
card.py           the model card for people
px/, minmax/      the shipped models: for shards of `flowkit extract`, and of `flowkit import stst`
"""

"""Synthetic faces whose motion is known exactly: scenes, recordings, and samples of flow."""

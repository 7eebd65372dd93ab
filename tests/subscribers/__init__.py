"""Tests of `subscribers`."""

"""Whether a network only guesses: its answers know nothing of the images."""

from __future__ import annotations

import math

import numpy as np


def can_be_told(labels: np.ndarray, deviations: float) -> bool:
    """Whether there are so many images that right answers to all are `deviations` above guessing."""
    return above_guessing(labels, labels) >= deviations


def above_guessing(answers: np.ndarray, labels: np.ndarray) -> float:
    """By how many standard deviations `answers` [images] are right more often than if they knew nothing of the image.

    That is Cohen's kappa over its standard error where there is no agreement but by chance (Fleiss, Cohen and Everitt
    1969): the frequencies of the answers and of the labels are given, so that one answer to all is worth 0, however
    frequent it is. Answers below 0 are none, and wrong.
    """
    classes = int(max(labels.max(), answers.max())) + 1
    answered = np.bincount(answers[answers >= 0], minlength=classes) / len(answers)
    frequency = np.bincount(labels, minlength=classes) / len(labels)
    expected = float(answered @ frequency)
    variance = expected + expected**2 - float((answered * frequency) @ (answered + frequency))
    if variance < 1e-9:
        return 0.0
    return float(np.mean(answers == labels) - expected) / math.sqrt(variance / len(labels))

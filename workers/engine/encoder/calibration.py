"""Texts that quantization looks at: short and long, plain and technical, prose, questions and lists."""

from __future__ import annotations

from typing import Final

_SENTENCES: Final = (
    "The last train left the valley a little before dawn, and nobody on the platform noticed.",
    "How do I reset the password of my account?",
    "best running shoes for flat feet",
    "The committee approved the budget of 4.2 million euros by eleven votes to three.",
    "Error 504: the upstream server did not answer within 30 seconds.",
    "She mixed flour, butter and sugar, then left the dough in a cold place for an hour.",
    "Refund requested: item arrived damaged, order no. 88213.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "def mean(values): return sum(values) / len(values)",
    "The defendant shall pay the costs of the proceedings.",
    "Great sound, poor battery. Would not buy again.",
    "Patients over 65 received half the dose for the first two weeks.",
    "weather tomorrow",
    "In 1969, two people walked on the Moon while a third one circled above them.",
    "Please find attached the minutes of the meeting; comments are welcome until Friday.",
    "The quarterly figures exceeded expectations, yet the share lost six percent.",
    "What is the difference between a violin and a viola?",
    "To clean the filter, switch the machine off, open the lid and rinse it with warm water.",
    "Goalkeeper saves penalty in extra time; home side through to the final.",
    "A matrix is invertible if and only if its determinant is not zero.",
    "Old stone bridges cross the river at three places, and the middle one is closed to cars.",
    "Is this seat taken?",
    "The museum's new wing shows photographs, letters and furniture from the harbour's first century.",
    "Shares, bonds and cash: how to divide your savings at thirty, forty and fifty.",
    "I have been waiting for a technician since Monday and nobody calls back!",
    "The protein folds within milliseconds, guided by water that avoids its greasy parts.",
    "cheap flights Lisbon March",
    "Voters in the north turned out in record numbers despite snow and broken railway lines.",
    "Install the package, set the variable and restart the service.",
    "He had read the novel twice before he understood that the narrator was lying.",
    "Ice in the glacier's core records the dust of a volcano that erupted nine hundred years ago.",
    "Contract ends on 31 December unless either party renews it in writing.",
)


def calibration_texts() -> list[str]:
    """Return the sentences one by one, and runs of neighbours up to some two hundred tokens."""
    runs = [
        " ".join(_SENTENCES[start : start + count]) for count in (2, 4, 8) for start in range(0, len(_SENTENCES), count)
    ]
    return [*_SENTENCES, *runs]

"""Texts that 4-bit scales are fitted to: short and of many kinds, like what is asked of a model in bulk."""

from __future__ import annotations

from typing import Final

TEXTS: Final = (
    (
        "Summarize the following report in two sentences. The harbour authority counted 412 ships in March, eleven more "
        "than a year before. Grain and timber made up most of the cargo, while coal fell for the sixth month in a row."
    ),
    (
        'Extract the names and amounts as JSON: "On 3 May Anna Keller paid 120.50 EUR for two chairs, and Tomas Ruiz paid '
        '89 EUR for a lamp." {"payments": [{"name": "Anna Keller", "amount": 120.5}, {"name": "Tomas Ruiz", "amount": 89}]}'
    ),
    (
        "Classify the sentiment of this review as positive, negative or neutral. The battery lasts all day, but the screen "
        "scratched within a week and support never answered. Answer: negative"
    ),
    (
        "Translate to French: The museum is closed on Mondays. Le musée est fermé le lundi. Translate to German: Where can "
        "I buy a ticket? Wo kann ich eine Fahrkarte kaufen? Translate to Spanish: It rained all night. Llovió toda la noche."
    ),
    (
        "def mean(values):\n    if not values:\n        raise ValueError('mean of nothing')\n    return sum(values) / len(values)"
        "\n\nassert mean([1, 2, 3]) == 2\nfor row in csv.DictReader(open('prices.csv')):\n    total += float(row['price'])"
    ),
    (
        "Question: A train leaves at 09:40 and travels 150 km at 60 km/h. When does it arrive? Reasoning: 150 / 60 is 2.5 "
        "hours, which is two hours and thirty minutes after 09:40. Answer: 12:10."
    ),
    (
        "Which of these is a mammal? A) trout B) sparrow C) dolphin D) lizard. The answer is C, because dolphins breathe "
        "air, are warm-blooded and feed their young with milk."
    ),
    (
        "Dear Ms Okafor, thank you for your message of 14 June. Your order 20931 was shipped this morning and should reach "
        "you within three working days. If anything is missing, please reply to this letter. Kind regards, the service team"
    ),
    (
        "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. It takes place in the chloroplasts, "
        "whose green pigment absorbs mostly red and blue light. In the dark, plants use the stored sugar by respiration."
    ),
    (
        "Write a short poem about the sea in winter. Grey upon grey the long waves fold, the gulls cry out against the cold; "
        "a lantern moves along the pier, and night comes early, salt and clear."
    ),
    (
        "SELECT region, count(*) AS orders, sum(amount) AS total FROM sales WHERE sold_at >= '2024-01-01' GROUP BY region "
        "HAVING sum(amount) > 10000 ORDER BY total DESC; -- one row for each region that sold more than ten thousand"
    ),
    (
        "List three ways to save water at home: 1. Repair taps that drip. 2. Collect rain for the garden. 3. Run the washing "
        "machine only when it is full. Explain why the second one helps most in dry summers."
    ),
)

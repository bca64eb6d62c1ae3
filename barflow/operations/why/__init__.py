"""Why a bar is what it is: its versions, answers, files, loads, aggregates and alerts, collected from every store."""

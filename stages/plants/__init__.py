"""Drone photographs of plants: find the leaves, grade five diseases on each, and watch the field.

    drone_image --+--> [crop] --+--> leaf --> [grade_rust] ... [grade_mosaic] --> disease_grade
                  |             +--> leaf_found
                  |       ... all leaves graded ...
                  +--> [report] --> photo_report --> [watch] --> alarm
                  +--> [expect] -- a day later --> photo_due --> [remind] --> reminder
    06:00 daily   --> [analyse] ------------------------------------------> daily_effect
    field_plan    --> [chart]  -------------------------------------------> position
    inspection    --> [record] -------------------------------------------> leaf_truth

What is on the right are rows: tables in ClickHouse. `photo_report` is a table as well. A file each:

    basics      the app, and the types of which the others' are made
    leaves      photographs to leaves to grades
    report      a report a photograph, when all that came of it is done: a join
    health      how each position is, and an alarm when it worsens day by day: a state
    reminder    where no drone has been for a day: a timer
    daily       what the study says every morning: a schedule
    field       what people know about the field
    queries     the study's questions, as SQL
    effects     how sure the answers are
    cache       the frequent ones, kept by ClickHouse
"""

from stages.plants.basics import DISEASES, Area, Box, app
from stages.plants.daily import DailyEffect
from stages.plants.field import FieldPlan, InspectedLeaf, Inspection, LeafTruth, Position
from stages.plants.health import Alarm, Health
from stages.plants.leaves import DiseaseGrade, DroneImage, Leaf, LeafFound
from stages.plants.reminder import PhotoDue, Reminder
from stages.plants.report import PhotoReport

__all__ = [
    "DISEASES",
    "Alarm",
    "Area",
    "Box",
    "DailyEffect",
    "DiseaseGrade",
    "DroneImage",
    "FieldPlan",
    "Health",
    "InspectedLeaf",
    "Inspection",
    "Leaf",
    "LeafFound",
    "LeafTruth",
    "PhotoDue",
    "PhotoReport",
    "Position",
    "Reminder",
    "app",
]

"""The study's questions to ClickHouse, as SQL on the tables of `stages.plants`."""

MIN_IOU = 0.5

# A position's mean grade on a day. A plan may have been published more than once: the newest
# counts.
GRADES = """
SELECT disease_type AS disease, area, date, position_id, avg(predicted_grade) AS grade,
       count() AS leaves
FROM disease_grade
INNER JOIN (
    SELECT position_id, argMax(area, _published) AS area FROM position GROUP BY position_id
) AS plan USING (position_id)
GROUP BY disease, area, date, position_id
"""
LIVE = f"({GRADES})"


def means_of(grades: str) -> str:
    """The mean grade of each disease, area and day.

    Args:
        grades: what to select from: `LIVE`, or a table that has kept the same (`cache`).
    """
    return f"""
SELECT disease, area, date, count() AS positions, sum(leaves) AS leaves, avg(grade) AS mean,
       if(positions > 1, stddevSamp(grade) / sqrt(positions), NULL) AS standard_error
FROM {grades}
GROUP BY disease, area, date
ORDER BY disease, area = 'active', date
"""


def effects_of(grades: str) -> str:
    """What the medicine has done to each disease; `all` is the mean over the diseases.

    Positions without leaves on the first or the last day have no change.

    Args:
        grades: as of `means_of`.
    """
    return f"""
SELECT disease, countIf(area = 'control') AS control, countIf(area = 'active') AS active,
       avgIf(change, area = 'control') AS control_change,
       avgIf(change, area = 'active') AS active_change,
       varSampIf(change, area = 'control') AS control_variance,
       varSampIf(change, area = 'active') AS active_variance
FROM (
    SELECT arrayJoin([disease, 'all']) AS disease, area, position_id,
           avgIf(grade, date = last_day) - avgIf(grade, date = first_day) AS change
    FROM (
        SELECT *, min(date) OVER () AS first_day, max(date) OVER () AS last_day FROM {grades}
    )
    GROUP BY disease, area, position_id
    HAVING NOT isNaN(change)
)
GROUP BY disease
ORDER BY disease = 'all', disease
"""


# A leaf that was found and one that is there are a pair if each is the other's best and they
# overlap enough. This takes every photograph for one that was inspected.
_PAIRS = f"""
SELECT * FROM (
    SELECT *,
           row_number() OVER (PARTITION BY position_id, date, leaf_idx, crop_model
                              ORDER BY iou DESC, leaf_crop_idx) AS place_of_found,
           row_number() OVER (PARTITION BY position_id, date, leaf_crop_idx, crop_model
                              ORDER BY iou DESC, leaf_idx) AS place_of_truth
    FROM (
        SELECT f.position_id AS position_id, f.date AS date, f.leaf_crop_idx AS leaf_crop_idx,
               (f.cropper_model_id, f.cropper_model_version) AS crop_model,
               t.leaf_idx AS leaf_idx, t.grades AS grades,
               greatest(0, least(f.box.x1, t.box.x1) - greatest(f.box.x0, t.box.x0)) AS width,
               greatest(0, least(f.box.y1, t.box.y1) - greatest(f.box.y0, t.box.y0)) AS height,
               (f.box.x1 - f.box.x0) * (f.box.y1 - f.box.y0) AS found_size,
               (t.box.x1 - t.box.x0) * (t.box.y1 - t.box.y0) AS true_size,
               width * height / (found_size + true_size - width * height) AS iou
        FROM leaf_found AS f
        INNER JOIN leaf_truth AS t ON f.position_id = t.position_id AND f.date = t.date
    )
    WHERE iou >= {MIN_IOU}
)
WHERE place_of_found = 1 AND place_of_truth = 1
"""

DETECTION = f"""
SELECT (SELECT count() FROM leaf_found) AS found, (SELECT count() FROM leaf_truth) AS leaves,
       count() AS pairs
FROM ({_PAIRS})
"""

GRADING = f"""
SELECT g.disease_type AS disease, count() AS graded,
       arraySort(groupUniqArray(concat(g.disease_model_id, ' ', g.disease_model_version)))
           AS models,
       avg(g.predicted_grade = p.grades[g.disease_type]) AS exact,
       avg(abs(g.predicted_grade - p.grades[g.disease_type]) <= 1) AS within_one
FROM disease_grade AS g
INNER JOIN ({_PAIRS}) AS p
    ON g.position_id = p.position_id AND g.date = p.date AND g.leaf_crop_idx = p.leaf_crop_idx
       AND g.cropper_model_id = p.crop_model.1 AND g.cropper_model_version = p.crop_model.2
WHERE mapContains(p.grades, g.disease_type)
GROUP BY disease
ORDER BY disease
"""

# Two answers for the same leaf beside the truth: the live one and that of a run. Both are in the
# storage behind the view, shown or not.
VERSIONS = f"""
SELECT p.grades[{{disease:String}}] AS truth, old.predicted_grade AS old,
       new.predicted_grade AS new, count() AS leaves
FROM (
    SELECT * FROM disease_grade__storage FINAL
    WHERE _run = {{run:String}} AND disease_type = {{disease:String}}
) AS new
INNER JOIN (
    SELECT * FROM disease_grade__storage FINAL
    WHERE _run = '' AND disease_type = {{disease:String}}
) AS old USING (position_id, date, leaf_crop_idx, cropper_model_id, cropper_model_version)
INNER JOIN ({_PAIRS}) AS p
    ON p.position_id = new.position_id AND p.date = new.date
       AND p.leaf_crop_idx = new.leaf_crop_idx AND p.crop_model.1 = new.cropper_model_id
       AND p.crop_model.2 = new.cropper_model_version
WHERE mapContains(p.grades, {{disease:String}})
GROUP BY truth, old, new
ORDER BY truth, old, new
"""

# Which version made which rows: `leaves` differs from `rows` if a leaf was answered twice.
ANSWERED = """
SELECT _run AS run, disease_model_version AS version, count() AS rows,
       uniqExact(position_id, date, leaf_crop_idx, cropper_model_id, cropper_model_version)
           AS leaves
FROM disease_grade__storage FINAL
WHERE disease_type = {disease:String}
GROUP BY run, version
ORDER BY run, version
"""

# When the last live grade of a photograph was in the stream, in nanoseconds, and who graded it.
GRADED = """
SELECT position_id, date, toUnixTimestamp64Nano(max(_published)) AS graded,
       groupUniqArrayIf(disease_model_version, disease_type = {disease:String}) AS versions
FROM disease_grade__storage FINAL
WHERE _run = '' AND date >= {since:Date}
GROUP BY position_id, date
"""

# Of each photograph with leaves: how many there are, and how many grades of 0, 1, 2 and 3.
LEAVES = "SELECT position_id, date, count() AS leaves FROM leaf_found GROUP BY position_id, date"
COUNTS = """
SELECT position_id, date,
       arrayMap(grade -> countEqual(groupArray(predicted_grade), grade), range(4)) AS by_grade
FROM disease_grade
GROUP BY position_id, date
"""

# The mean grade of each photograph by the eyes of who stood there.
INSPECTED = """
SELECT position_id, date, arrayAvg(arrayFlatten(groupArray(mapValues(grades)))) AS grade
FROM leaf_truth
GROUP BY position_id, date
"""

"""What only the course knows: deadline, where to hand in, marks. `course.ini` says it, for students and for grades."""

import configparser
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kit.console import did_you_mean
from kit.handin.texts import text_of

TEMPLATE = Path(__file__).with_name("course.ini")


@dataclass
class Course:
    """A course's own facts; `marks` are points by part, `rubric` the marks that each part of a report brings."""

    deadline: datetime | None
    hand_in: dict  # language → where
    marks: dict
    percent_per_problem: float
    none: float
    full: float
    rubric: dict
    free_days: float
    percent_per_day: float

    @property
    def points(self):
        """How many points can be had."""
        return sum(self.marks.values())

    def kept(self, days):
        """Which share of what was reached is kept by who is so many days late."""
        return max(0.0, 1 - self.percent_per_day / 100 * max(0, days - self.free_days))


def read_course(file=None):
    """The Course of a file like `course.ini`; what the file does not say is as there.

    Raises ValueError that names the section and the entry that is unknown or has no meaning.
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(TEMPLATE.read_text(encoding="utf-8"))
    if file:
        _update(parser, file)

    def number(section, name, lowest=0.0):
        text = parser[section][name]
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not lowest <= value < 1e6:
            raise ValueError(f"{file}: [{section}] {name} must be a number from {lowest:g} on, not {text!r}")
        return value

    when = parser["course"]["deadline"].strip()
    try:
        deadline = datetime.strptime(when, "%Y-%m-%d %H:%M") if when else None
    except ValueError:
        raise ValueError(f"{file}: [course] deadline must be like 2026-12-31 23:59, not {when!r}") from None
    hand_in = {language: parser["course"][f"hand_in.{language}"].strip() for language in ("en", "zh")}
    course = Course(deadline, hand_in, {name: number("marks", name) for name in parser["marks"]},
                    number("checks", "percent_per_problem"), number("pictures", "none", 1),
                    number("pictures", "full", 1), {name: number("report", name) for name in parser["report"]},
                    number("late", "free_days"), number("late", "percent_per_day"))
    if clash := course.rubric.keys() & {"handin", "student_id", "name", "late_days", "checks_percent",
                                        "pictures_percent", "comment"}:
        raise ValueError(f"{file}: [report] {min(clash)!r} is another column of the table of marks; call it otherwise")
    if not course.none < course.full <= 5:
        raise ValueError(f"{file}: [pictures] full must be more than none, and at most 5")
    if not course.points or course.marks["report"] and not sum(course.rubric.values()):
        raise ValueError(f"{file}: [marks] there is nothing to be reached, or [report] has no rubric for its points")
    return course


def _update(parser, file):
    """Take over what a file says; every entry must be one that is known, but for the rubric, which is the course's."""
    own = configparser.ConfigParser(interpolation=None)
    own.optionxform = str
    try:
        own.read_string(text_of(file))
    except configparser.Error as error:
        raise ValueError(f"{file}: is not written like teacher/course.ini: {' '.join(str(error).split())}") from error
    for section in own.sections():
        if section not in parser:
            raise ValueError(f"{file}: there is no section [{section}]{did_you_mean(section, parser.sections())}")
        if section == "report":
            parser.remove_section(section)
            parser.add_section(section)
        for name, value in own[section].items():
            if section != "report" and name not in parser[section]:
                raise ValueError(f"{file}: [{section}] has no entry {name!r}{did_you_mean(name, parser[section])}")
            parser[section][name] = value


def told(course):
    """What the student edition says of a course: "where" to hand in and when, "marks"; each in English and Chinese."""
    if course is None:
        return {"where": {"en": "Where and when to hand in, your course says.",
                          "zh": "提交的地点和时间以课程通知为准。"}, "marks": {"en": "", "zh": ""}}
    when = course.deadline and f"{course.deadline:%Y-%m-%d %H:%M}"
    free, days = f"{course.free_days:g}", f"{course.percent_per_day:g}"
    late = {"en": (f"{free} late days cost nothing; each further" if course.free_days else "Each late")
                  + f" day that has begun takes {days} % of the points.",
            "zh": (f"迟交 {free} 天以内不扣分，此后" if course.free_days else "迟交")
                  + f"每天（不足一天按一天计）扣除得分的 {days}%。"} if course.percent_per_day else {"en": "", "zh": ""}
    where = {
        "en": " ".join(filter(None, [f"**Hand in by {when}.**" if when else "", _sentence(course.hand_in["en"], "."),
                                     late["en"]])),
        "zh": "".join(filter(None, [f"**截止时间：{when}。**" if when else "", _sentence(course.hand_in["zh"], "。"),
                                    late["zh"]]))}
    points = {name: f"{value:g}" for name, value in {**course.marks, "all": course.points}.items()}
    parts = [f"{name} {value:g}" for name, value in course.rubric.items()]
    share, none, full = f"{course.percent_per_problem:g}", f"{course.none:g}", f"{course.full:g}"
    return {"where": where, "marks": {
        "en": f"\n\nOf {points['all']} points {points['checks']} are for the checks (each problem that they find takes "
              f"{share} % of them), {points['pictures']} for the pictures (all for a mean score of {full} and more, "
              f"none for {none}), and {points['report']} for the report ({', '.join(parts)}).",
        "zh": f"\n\n总分 {points['all']} 分：检查 {points['checks']} 分（每发现一个问题扣除其中的 {share}%），图片 "
              f"{points['pictures']} 分（平均分达到 {full} 得满分，{none} 分不得分），报告 {points['report']} 分"
              f"（{'、'.join(parts)}）。"}}


def _sentence(text, end):
    """A text that ends as a sentence does."""
    return text + end if text and text[-1] not in ".!?。！？" else text

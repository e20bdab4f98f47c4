"""Honest hand-ins as platforms, systems, editors and people leave them, and the verdict that each deserves.

"ok", "note" where a person should look, or "problem" where the student has to do something.
"""

import shutil
import tarfile

from PIL import Image
from students import SET_UP, Student, compressed, registers

import utils
from helpers import ROOT
from kit.handin.contents import RESULT

HONEST = {}
honest = registers(HONEST)

# Put behind the kit's own models.py or solver.py.
CODE = {
    "residual block of another make": "class ResidualBlock(nn.Module):\n"
                                      "    def __init__(self, kernel, channels, n):\n        super().__init__()\n",
    "frozen mean shift": "_make = make_generator\ndef make_generator(cfg):\n    network = _make(cfg)\n"
                         "    next(network.parameters()).requires_grad_(False)\n    return network\n",
    "package that is not installed": "import einops_of_nowhere\n",
}
FEATURES = """
from kit.vgg import VGGFeatures
def features_epoch(generator, batches):
    features = VGGFeatures(2, 2)
    for lr, hr in batches:
        loss = vgg_loss(features, generator(lr), hr)
        generator.descend(loss)
        yield {"features": loss}
def default_phases(cfg):
    return [Phase("features", features_epoch, 1, 1e-4)]
"""


@honest("张三", "Moodle: a folder with a zip in it", "ok")
def _moodle(student, place):
    student.zipped(place / "张三_101_assignsubmission_file_" / "hw.zip", "hw/")


@honest("wangfang", "Canvas, late, and again: the newest counts", "ok")
def _canvas(student, place):
    shutil.copytree(student.folder, place / "first")
    (place / "first" / "report.md").unlink()
    first = Student.__new__(Student)
    first.folder = place / "first"
    first.zipped(place / "wangfang_LATE_202_9001_hw.zip")
    student.zipped(place / "wangfang_202_9002_hw-1.zip")


@honest("2021012301_李娜", "number_name.zip", "ok")
def _tsinghua(student, place):
    student.zipped(place / "2021012301_李娜_超分辨率.zip", "超分辨率/")


@honest("2021012302_赵六", "names in GBK, files in folders of one's own", "note", "was found as")
def _gbk(student, place):
    (student.folder / "代码").mkdir()
    for name in ("models.py", "solver.py"):
        (student.folder / name).rename(student.folder / "代码" / name)
    (student.folder / RESULT).rename(student.folder / "结果")
    student.zipped(place / "2021012302_赵六.zip", "作业/", encoding="gbk")


@honest("2021012303_許功蓋", "names in Big5, with a backslash among the bytes", "ok")
def _big5(student, place):
    student.zipped(place / "2021012303_許功蓋.zip", "功課許蓋/", encoding="big5")


@honest("2021012304_Powershell", "Windows PowerShell: backslashes", "ok")
def _powershell(student, place):
    student.zipped(place / "2021012304_Powershell.zip", "hw/", separator="\\")


@honest("2021012305_Tar", "Linux: .tar.gz", "ok")
def _tar(student, place):
    with tarfile.open(place / "2021012305_Tar.tar.gz", "w:gz") as archive:
        archive.add(student.folder, "hw")
    shutil.rmtree(student.folder)


@honest("2021012306_Mac", "macOS: __MACOSX, ._ files, .DS_Store", "ok")
def _mac(student, place):
    student.zipped(place / "2021012306_Mac.zip", "hw/", junk=["__MACOSX/hw/._models.py", "hw/.DS_Store",
                                                              "hw/._train.ipynb", "hw/Icon\r"])


@honest("2021012307_Code", "VS Code and Jupyter: .vscode, .ipynb_checkpoints, __pycache__", "ok")
def _vscode(student, place):
    student.zipped(place / "2021012307_Code.zip", "hw/", junk=[
        "hw/.vscode/settings.json", "hw/.ipynb_checkpoints/train-checkpoint.ipynb", "hw/__pycache__/models.pyc"])


@honest("2021012308_Older", "an older models.py deeper down", "ok")
def _older(student, place):
    student.add("old/models.py", "raise SystemExit\n")
    shutil.move(student.folder, place / "2021012308_Older")


@honest("2021012309_Colab", "Colab: two cells before the kit's own", "note", "its first 2 cells, before the kit's own")
def _colab(student, place):
    student.notebook("train", ["from google.colab import drive", "%cd /content", SET_UP, "1 + 1"], "trained",
                     first=4)


@honest("2021012310_Browser", "single files as a browser names them", "note", "train.ipynb was found as")
def _browser(student, place):
    (student.folder / "train.ipynb").rename(student.folder / "train (1).ipynb")
    (student.folder / "report.md").rename(student.folder / "report - 副本.md")


@honest("2021012311_Bom", "byte order marks in all texts", "ok")
def _bom(student, place):
    for path in [*student.folder.glob("*.ipynb"), student.folder / "report.md", student.folder / "models.py",
                 student.folder / RESULT / "result.json"]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


@honest("2021012312_Gbk", "a report in GBK", "ok")
def _gbk_report(student, place):
    student.write_report("我们尝试了不同的参数，并作了比较。")
    text = (student.folder / "report.md").read_text(encoding="utf-8")
    (student.folder / "report.md").write_bytes(text.encode("gb18030"))


@honest("2021012313_Pen", "the hints were left above own words", "ok")
def _pen(student, place):
    student.write_report("I trained it for a night.", hints=True)


@honest("2021012314_Word", "a report made with Word", "note", "report.md is missing, but 报告.docx is there: read it")
def _word(student, place):
    (student.folder / "report.md").rename(student.folder / "报告.docx")


@honest("2021012315_Baby", "Set5's pictures under their other names", "note", "img_001.png was found as baby.png")
def _baby(student, place):
    names = ["baby", "bird", "butterfly", "head", "woman"]
    student.pictures(student.read(), places={f"img_{i:03d}": f"{name}.png" for i, name in enumerate(names, 1)})


@honest("2021012316_Jpeg", "pictures as JPEG, measured as such", "note", "what it has lost counts")
def _jpeg(student, place):
    pictures = {name: compressed(picture) for name, picture in student.read().items()}
    student.pictures(pictures)
    for path in (student.folder / RESULT / "Set5").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=100, subsampling=0)
        path.unlink()
    measured = {path.stem: utils.read_picture(path) for path in (student.folder / RESULT / "Set5").glob("*.jpg")}
    student.tell(student.scores_of(measured))


@honest("[hw3] ann", "brackets in the name", "ok")
def _brackets(student, place):
    pass


@honest("2021012318_UNet", "a network that looks nothing like the paper's", "note", "", code=True)
def _unet(student, place):
    shutil.copy(ROOT / "tests" / "own_models.py", student.folder / "models.py")


@honest("2021012319_Package", "networks in a package of one's own", "note", "", code=True)
def _package(student, place):
    student.add("mysr/__init__.py", "")
    shutil.copy(ROOT / "tests" / "own_models.py", student.folder / "mysr" / "networks.py")
    (student.folder / "models.py").write_text("from mysr.networks import *\n", encoding="utf-8")


@honest("2021012320_Block", "sgrvinod's style: a residual block of another make", "note", "", code=True)
def _block(student, place):
    shutil.copy(ROOT / "tests" / "own_models.py", student.folder / "models.py")
    student.add("models.py", CODE["residual block of another make"])


@honest("2021012321_EDSR", "EDSR's frozen mean shift", "ok", "", code=True)
def _edsr(student, place):
    student.add("models.py", CODE["frozen mean shift"])


@honest("2021012322_Einops", "needs a package that is not installed", "note", "install it to try the code", code=True)
def _einops(student, place):
    (student.folder / "models.py").write_text(CODE["package that is not installed"], encoding="utf-8")


@honest("2021012323_VGG", "a phase with VGG's features", "note", "it needs weights that are not here", code=True)
def _vgg(student, place):
    student.add("solver.py", FEATURES)


@honest("2021012325_Platform", "asks for the processor; a folder called like a file of the kit", "ok", "", code=True)
def _platform(student, place):
    student.add("models.py", "import platform\nplatform.processor()\n")
    student.add("utils.py/mine.py", "")


@honest("2021012326_Twice", "the same method in the tables of two runs", "ok")
def _twice(student, place):
    mine = student.scores_of(student.read())
    tables = [f"PSNR / SSIM / NIQE  Set5 (5)\n{'─' * 20}\nmine  {scores[0]:.2f} / {scores[1]:.4f} / 5.00\n"
              for scores in ((20.0, 0.5), mine)]
    student.notebook("test", [SET_UP, "print('test')"], "\n".join(tables))


@honest("2021012324_Seven", "a 7z archive: to be unpacked by hand", "problem", "of 7-Zip, which cannot be opened here")
def _seven(student, place):
    (place / "2021012324_Seven.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    shutil.rmtree(student.folder)

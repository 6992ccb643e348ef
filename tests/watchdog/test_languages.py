"""A collapse looks alike in every language, with spaces between words or without."""

import random

import pytest
from transformers import TrainerControl, TrainerState

from hf_mgan.training.batch_metrics import batch_metrics
from hf_mgan.watchdog.callback import Watchdog


# Words, and what stands between them.
LANGUAGES = {
    "english": ("the old king sees a small dog near river while birds eat two apples under this green tree", " "),
    "korean": ("오늘 나는 학교에 가서 한국어를 공부하고 집에 돌아와 밥을 먹고 책을 읽었다 날씨가 아주 좋다", " "),
    "chinese": ("我们 今天 去 学校 学习 中文 然后 回家 吃饭 看书 写字 天气 很 好 大家 都 喜欢 喝茶", ""),
    "japanese": ("私 は きょう 学校 で 日本語 を 勉強 して から 家 に 帰って ごはん 食べました 本 読む", ""),
    "thai": ("วันนี้ ฉัน ไป โรงเรียน เรียน ภาษา ไทย แล้ว กลับ บ้าน กิน ข้าว อ่าน หนังสือ อากาศ ดี มาก", ""),
    "lao": ("ມື້ນີ້ ຂ້ອຍ ໄປ ໂຮງຮຽນ ຮຽນ ພາສາ ລາວ ແລ້ວ ກັບ ບ້ານ ກິນ ເຂົ້າ ອ່ານ ຫນັງສື ອາກາດ ດີ", ""),
    "khmer": ("ថ្ងៃនេះ ខ្ញុំ ទៅ សាលា រៀន ភាសា ខ្មែរ ហើយ ត្រឡប់ ផ្ទះ ញ៉ាំ បាយ អាន សៀវភៅ អាកាស ល្អ", ""),
    "burmese": ("ဒီနေ့ ကျွန်တော် ကျောင်း သွား မြန်မာ စာ သင် ပြီး အိမ် ပြန် ထမင်း စား စာအုပ် ဖတ် ကောင်း", ""),
}


def real_and_collapsed(words, space):
    """Real texts of 12 words, and texts that differ in their last two words alone, so that they are no duplicates."""
    draw = random.Random(0)
    words = words.split()

    def text(length):
        return space.join(draw.choice(words) for _ in range(length))

    start = text(10)
    return [text(12) for _ in range(32)], [space.join([start, text(2)]) for _ in range(32)]


def alarms_of(batches, patience=2):
    watchdog, state, args = Watchdog(patience=patience), TrainerState(), None
    for step, (completions, references) in enumerate(batches):
        state.global_step = step
        logs = {"discriminator/accuracy": 0.7, **batch_metrics(completions, references)}
        watchdog.on_log(args, state, TrainerControl(), logs=logs)
    return {alarm.name for alarm in watchdog.alarms}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_collapse_raises_its_alarm(language):
    real, collapsed = real_and_collapsed(*LANGUAGES[language])
    healthy = [(real[:16], real[16:])] * 2
    assert "generator_collapsed" not in alarms_of(healthy)
    assert "generator_collapsed" in alarms_of([*healthy, (collapsed[:16], real[16:]), (collapsed[:16], real[16:])])


def test_english_is_counted_in_words():
    real, collapsed = real_and_collapsed(*LANGUAGES["english"])
    assert batch_metrics(collapsed, real) == batch_metrics(collapsed, real, unit="word")
    assert batch_metrics(collapsed, real) != batch_metrics(collapsed, real, unit="character")


def test_unit_of_the_config_reaches_the_metrics_of_a_batch(make_trainer, make_config):
    logged = {}
    for unit in ("auto", "word", "character"):
        trainer = make_trainer(make_config(max_steps=1, learning_rate=0.0, unit=unit))
        trainer.train()
        entry = next(entry for entry in trainer.state.log_history if "completions/self_bleu" in entry)
        logged[unit] = [entry[f"{side}/self_bleu"] for side in ("completions", "references")]
    assert logged["auto"] == logged["word"]
    assert all(chars > words for chars, words in zip(logged["character"], logged["word"], strict=True))

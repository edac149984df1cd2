"""Sentences for synthetic speakers: templates with words, in three languages, and some kept for held-out speakers."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

HELD_OUT_PART = 5  # one sentence in five is kept for held-out speakers


class _Grammar(NamedTuple):
    """templates with {slots}; words for each slot."""

    templates: tuple[str, ...]
    words: dict[str, tuple[str, ...]]


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


_ENGLISH = _Grammar(
    _split(
        "The {adj} {noun} {verb} {place} | My {person} bought a {adj} {noun} {time} | "
        "Please bring me the {noun} {place} |"
        "Have you ever seen a {adj} {noun} {place}? | {time} we {act} and {act} | "
        "Nobody knows why the {noun} {verb} |"
        "Maybe my {person} will {act} {time} | I would rather {act} than {act} |"
        "Every {noun} {verb} when the {noun} {verb} | What a {adj} {noun}! | "
        "Yes, of course, my {person} and I {act} {time} |"
        "Five {adj} boats and seven {adj} moons {place}"
    ),
    {
        "adj": _split(
            "big | small | blue | yellow | happy | quiet | brave | warm | smooth | purple | famous | wooden | "
            "mysterious | beautiful | perfect | foggy | velvet | broken | soft | bright"
        ),
        "noun": _split(
            "boat | mountain | piano | window | farmer | market | apple | bicycle | river | moon | "
            "balloon | elephant | "
            "library | umbrella | camera | garden | violin | table | lemon | island | teapot | pumpkin | "
            "planet | bridge | "
            "puppy | computer | village | train | feather | volcano | mirror | orange"
        ),
        "verb": _split(
            "moves slowly | fell asleep | opens its mouth | begins to shine | was never found | makes me laugh | "
            "looks very far away | became a problem | floats above the water | disappears | wins every time | sings"
        ),
        "place": _split(
            "above the bay | behind the old house | near the factory | on the beach | under the apple tree | "
            "in the middle of the room | by the window | at the opera | over the hills | from the top of the tower"
        ),
        "person": _split(
            "mother | father | brother | best friend | neighbour | boss | grandmother | uncle | teacher | baby"
        ),
        "time": _split(
            "tomorrow | this morning | before lunch | on Monday | last summer | at five o'clock | in November | "
            "every evening | after the movie | once a month"
        ),
        "act": _split(
            "play football | make pancakes | read a book | walk home | paint the fence | watch the waves | "
            "move to Boston | sing a song | buy some flowers | speak more softly | bake apple pie | laugh out loud"
        ),
    },
)
_FRENCH = _Grammar(
    _split(
        "Le petit {noun_m} {verb} {place} | La grande {noun_f} {verb} {time} | Ma sœur achète une {noun_f} {time} |"
        "Mon frère a trouvé un {noun_m} {place} | {time}, nous allons {act} | Je voudrais {act} avec toi |"
        "Pourquoi la {noun_f} {verb}? | Personne ne veut {act} {place} | Voilà un {noun_m}! |"
        "Est-ce que tu peux {act} {time}? | Il faut d'abord {act}, puis {act}"
    ),
    {
        "noun_m": _split(
            "bateau | papillon | piano | fromage | jardin | voisin | bonbon | manteau | boulanger | "
            "oiseau | moulin | parapluie"
        ),
        "noun_f": _split(
            "maison | fenêtre | pomme | voiture | montagne | lumière | fleur | bibliothèque | chanson | "
            "boîte | plage | lune"
        ),
        "verb": _split(
            "bouge doucement | a disparu | s'ouvre lentement | brille encore | me fait rire | part bientôt | chante"
        ),
        "place": _split(
            "au bord de la mer | dans la rue | près du pont | sous le vieux pommier | devant l'opéra | à la gare"
        ),
        "time": _split(
            "demain matin | ce soir | avant midi | le mois prochain | à cinq heures | pendant l'été | dimanche"
        ),
        "act": _split(
            "manger une pomme | faire du vélo | boire un café | lire un poème | acheter du pain | parler plus fort | "
            "apprendre à danser | préparer le repas"
        ),
    },
)
_MANDARIN = _Grammar(
    _split(
        "{who}{time}{act} | {time}{who}和{who}一起{act} | {who}为什么不{act}？ | {who}很喜欢{thing} | "
        "请给{who}一个{thing} |"
        "{place}有很多{thing} | {who}在{place}{act} | 你见过{place}的{thing}吗？ | 先{act}，然后{act}"
    ),
    {
        "who": _split("我 | 你 | 妈妈 | 爸爸 | 老师 | 朋友 | 弟弟 | 奶奶 | 医生 | 邻居"),
        "time": _split("今天 | 明天早上 | 昨天晚上 | 下个月 | 每天下午 | 星期五 | 夏天的时候"),
        "act": _split(
            "喝茶 | 吃苹果 | 看电影 | 去公园跑步 | 买面包 | 唱一首歌 | 学中文 | 爬山 | 打篮球 | 写信 | 坐飞机"
        ),
        "thing": _split("苹果 | 白马 | 飞机 | 木头桌子 | 面包 | 花 | 葡萄 | 皮球 | 地图 | 雨伞 | 蓝色的帽子"),
        "place": _split("北京 | 图书馆 | 河边 | 山上 | 学校旁边 | 门口 | 办公室 | 海边"),
    },
)
_GRAMMARS = {"en": _ENGLISH, "fr": _FRENCH, "cmn": _MANDARIN}


def is_held_out(text: str) -> bool:
    """Whether a sentence belongs to the pool of held-out speakers, by its hash."""
    return zlib.crc32(text.encode()) % HELD_OUT_PART == 0


def sentence(language: str, rng: np.random.Generator, *, held_out: bool) -> str:
    """A sentence of one of the languages of `speech.LANGUAGES`, from the held-out pool or from the other."""
    grammar = _GRAMMARS[language.split("-")[0]]
    while True:
        text = _filled(grammar, str(rng.choice(grammar.templates)), rng)
        if is_held_out(text) == held_out:
            return text


def _filled(grammar: _Grammar, template: str, rng: np.random.Generator) -> str:
    while "{" in template:
        before, _, rest = template.partition("{")
        slot, _, after = rest.partition("}")
        template = before + str(rng.choice(grammar.words[slot])) + after
    text = template[0].upper() + template[1:]
    return text if text[-1] in "?!？" else text + ("。" if ord(text[0]) > 0x2E80 else ".")

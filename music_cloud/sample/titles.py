"""Word pools from which every name in the sample catalogue is composed.

Invariant: the pools never depend on the catalogue's seed or size, so a song that a later step of churn
adds is sung by the same singers, on the same albums, as the songs that were there before.
Which word a song gets is decided in ``songs``; this file only says which words exist.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ZH_HEADS: Final = _words(
    "七里 晴天 夜空 海底 稻香 青花 烟雨 月光 星河 长安 江南 故乡 远方 少年 时光 流年 浮生 人间 山河 "
    "秋风 春雪 白鹿 红豆 蓝色 微光 孤独 温柔 倔强 沉默 勇敢 遥远 最后 第一 平凡 奇妙 透明 金色 黑白 "
    "永恒 半岛 城市 列车 雨后 黎明 黄昏 午夜 四月 十年 千里 万物 一路 无名 旧日 来时 天边 云上 风中 "
    "雪落 花开 北方"
)
_ZH_TAILS: Final = _words(
    "香 之歌 的你 的夏天 的街 情书 物语 旅人 来信 之城 的海 日记 回忆 练习曲 小夜曲 奇遇 告白 传说 的梦 "
    "往事 灯火 彼岸 信使 独白 序曲 之约 的路 的风 轨迹 心事 过客 的雨 回声 蝴蝶 飞鸟 流星 咖啡馆 电影院 "
    "车站 码头 花园 岛屿 谎言 拥抱 告别 重逢 等待 远行 归来 如初 不眠 有你 无声 未完 成诗 渡口 听风 "
    "看海 摇篮曲 进行曲"
)
_EN_HEADS: Final = _words(
    "Midnight Silent Golden Broken Electric Paper Velvet Crystal Lonely Burning Faded Distant Hidden "
    "Endless Neon Wild Summer Winter Autumn Ocean Desert Mountain Silver Crimson Hollow Gentle Restless "
    "Sacred Secret Falling Rising Dancing Sleeping Dreaming Running Floating Shining Wandering "
    "Forgotten Beautiful Little"
)
_EN_TAILS: Final = _words(
    "Rain Heart Sky Road River Light Fire Dream Shadow City Moon Star Train Letter Garden Mirror Window "
    "Bridge Island Harbor Thunder Echo Whisper Season Morning Evening Memory Promise Horizon Paradise "
    "Lullaby Symphony Waltz Highway Avenue Station Wings Flowers Stories Strangers Lovers Kingdom "
    "Machine Satellite"
)

# Reserved characters belong here: they end up in locators, where a URL must percent-encode them.
_SUFFIX_WEIGHTS: Final = {
    "": 170,
    " (Live)": 9,
    " (Remix)": 5,
    " (DJ版)": 4,
    " #1": 3,
    "?": 3,
    " [伴奏]": 3,
    " (feat. 阿明)": 1,
    " & You": 1,
    " 100%": 1,
}

_ZH_FAMILY: Final = (
    "周林陈王张李刘孙邓薛许毛杨赵吴徐朱马胡郭何高罗郑梁谢宋唐冯韩曹彭曾萧田董潘袁蔡蒋余杜叶程魏苏吕丁"
)
_ZH_GIVEN: Final = _words(
    "杰伦 俊杰 奕迅 燕姿 紫棋 之谦 嵩 不易 宗盛 若英 依林 健雅 思睿 子墨 雨桐 浩然 诗涵 梓萱 明轩 静怡 "
    "建国 晓东 海涛 秀英 志强 美玲 家豪 佳颖 天佑 雪琴 文博 雅婷 一帆 可欣 立群 芳 磊 洋 婷 伟 敏 涛 鑫 "
    "超 琳 峰 岚 楠 博 然"
)
_EN_FIRST: Final = _words(
    "Anna Ben Clara Daniel Emma Felix Grace Henry Iris Jack Kate Leo Mia Noah Olivia Paul Quinn Rose "
    "Sam Tara Uma Victor Wendy Xavier Yara Zoe Adam Bella Chloe David Ella Frank Gina Hugo Ivy James "
    "Lily Max Nora Oscar"
)
_EN_LAST: Final = _words(
    "Adams Baker Carter Dawson Ellis Foster Green Harper Irving Jordan Keller Lawson Mercer Norton "
    "Owens Parker Quincy Rivers Stone Turner Underwood Vance Walker Young Ziegler Brooks Cole Drake "
    "Evans Flynn Grant Hayes"
)
_BAND_NOUNS: Final = _words("乐队 乐团 组合 合唱团 工作室")

_PLAYLIST_MOODS: Final = _words(
    "深夜 清晨 午后 雨天 治愈 热血 慵懒 怀旧 失眠 微醺 通勤 学习 健身 旅行 咖啡馆 复古 甜蜜 伤感 安静 "
    "欢快 Chill Focus Workout Roadtrip Lofi Indie Acoustic Retro"
)
_PLAYLIST_KINDS: Final = _words(
    "华语 粤语 民谣 说唱 摇滚 电子 爵士 古风 纯音乐 R&B 影视原声 英文 钢琴 吉他 轻音乐 翻唱 现场 经典老歌"
)

# About as many as a million real songs have; the skew lets small catalogues meet mostly the famous ones.
_SINGER_COUNT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Pools:
    """Every word there is. ``singers`` are pairs of a name and a language, the most famous first."""

    singers: tuple[tuple[str, str], ...]
    titles: dict[str, tuple[str, ...]]
    suffixes: tuple[str, ...]
    playlist_names: tuple[str, ...]


@cache
def build_pools() -> Pools:
    """Compose the pools; the same ones every time, about 30 ms and 4 MiB."""
    zh = tuple(head + tail for head in _ZH_HEADS for tail in _ZH_TAILS)
    en = tuple(f"{head} {tail}" for head in _EN_HEADS for tail in _EN_TAILS)
    return Pools(
        singers=tuple(_compose_singers()),
        titles={"zh": zh, "yue": zh, "en": en},
        suffixes=tuple(suffix for suffix, weight in _SUFFIX_WEIGHTS.items() for _ in range(weight)),
        playlist_names=tuple(f"{mood}·{kind}" for mood in _PLAYLIST_MOODS for kind in _PLAYLIST_KINDS),
    )


def _compose_singers() -> list[tuple[str, str]]:
    rng = Random("singers")  # fixed on purpose: see the module's invariant
    singers: list[tuple[str, str]] = [("周杰伦", "zh")]
    while len(singers) < _SINGER_COUNT:
        kind = rng.random()
        if kind < 0.62:
            singers.append((rng.choice(_ZH_FAMILY) + rng.choice(_ZH_GIVEN), "zh" if kind < 0.54 else "yue"))
        elif kind < 0.72:
            singers.append((rng.choice(_ZH_HEADS) + rng.choice(_BAND_NOUNS), "zh"))
        elif kind < 0.94:
            singers.append((f"{rng.choice(_EN_FIRST)} {rng.choice(_EN_LAST)}", "en"))
        else:
            singers.append((f"The {rng.choice(_EN_HEADS)} {rng.choice(_EN_TAILS)}s", "en"))
    return singers

"""What the platform has ffmpeg do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

FRAMES_PER_SECOND = 5


def generate(video: Path, seconds: int = 1) -> None:
    """Make a small test video with a moving picture and a tone."""
    picture = f"testsrc=duration={seconds}:size=160x120:rate={FRAMES_PER_SECOND}"
    tone = f"sine=frequency=440:duration={seconds}"
    _ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, "-c:v", "mjpeg", "-c:a", "pcm_s16le", str(video))


def cut_frames(video: Path, directory: Path) -> int:
    """Write every frame of the video into the directory and return their number."""
    directory.mkdir(parents=True, exist_ok=True)
    _ffmpeg("-i", str(video), str(directory / "%04d.jpg"))
    return len(list(directory.glob("*.jpg")))


def extract_audio(video: Path, audio: Path) -> None:
    """Write the video's sound as a WAV file."""
    _ffmpeg("-i", str(video), "-vn", "-ac", "1", "-ar", "16000", str(audio))


def _ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", *arguments]
    subprocess.run(command, check=True)

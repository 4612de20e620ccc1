"""Settings to copy into other tools."""

HIDDEN = "YOUR-TEAM-KEY"  # stands for the key until somebody asks to see it

TOOLS = ["OpenAI Python", "Environment", "curl"]


def settings(tool: str, endpoint: str, key: str) -> list[tuple[str, str]]:
    """What to put where for one of `TOOLS`: pairs of language and text."""
    if tool == "OpenAI Python":
        return [
            (
                "python",
                "from openai import OpenAI\n\n"
                f'client = OpenAI(base_url="{endpoint}", api_key="{key}")\n'
                "answer = client.chat.completions.create(\n"
                '    model="coder", messages=[{"role": "user", "content": "Hello"}]\n)\n'
                "print(answer.choices[0].message.content)",
            )
        ]
    if tool == "Environment":
        return [("bash", f"export OPENAI_BASE_URL={endpoint}\nexport OPENAI_API_KEY={key}")]
    return [
        (
            "bash",
            f"curl {endpoint}/chat/completions -H 'Authorization: Bearer {key}' \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            """  -d '{"model": "coder", "messages": [{"role": "user", "content": "Hello"}]}'""",
        )
    ]

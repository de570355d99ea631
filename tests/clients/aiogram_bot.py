"""aiogram (PyPI, aiogram==3.*) drives a Bot API server and parses every message of it.

Arguments: base address of the Bot API, token, base address of the control API. Prints one line of JSON; exit
code 1 with the reason when something does not parse or does not hold.
"""

import asyncio
import json
import sys
import urllib.request

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramBadRequest, TelegramConflictError, TelegramForbiddenError, TelegramRetryAfter
from aiogram.types import (
    BufferedInputFile, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions, MessageEntity, ReplyParameters,
)

ANNA, BERT, GROUP = 900_001, 900_002, -100_900_003


def control(base, path, body=None):
    data = None if body is None else json.dumps(None if body == "off" else body).encode()
    request = urllib.request.Request(f"{base}/sandbox/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


async def refused(awaitable, kind, part):
    try:
        await awaitable
    except kind as error:
        assert part.lower() in str(error).lower(), f"{part!r} is not in {error}"
        return
    raise AssertionError(f"not refused with {kind.__name__}: {part}")


async def run(api, token, people):
    control(people, "users", {"id": ANNA, "first_name": "Anna", "username": "anna_x", "started": True})
    control(people, "users", {"id": BERT, "first_name": "Bert", "started": False})
    control(people, "groups", {"id": GROUP, "kind": "supergroup", "title": "Operations", "members": [ANNA, BERT]})
    bot = Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(api)))
    async with bot:
        me = await bot.get_me()
        assert me.is_bot and me.username
        assert (await bot.get_webhook_info()).url == ""
        assert await bot.delete_webhook()
        keyboard = InlineKeyboardMarkup(inline_keyboard=[[
            InlineKeyboardButton(text="Approve", callback_data="a:1"), InlineKeyboardButton(text="Reject", callback_data="r:1")]])
        sent = await bot.send_message(
            ANNA, "Ship 🦀 it?", entities=[MessageEntity(type="bold", offset=5, length=2)], reply_markup=keyboard,
            link_preview_options=LinkPreviewOptions(is_disabled=True))
        assert sent.entities[0].extract_from(sent.text) == "🦀" and sent.chat.username == "anna_x"
        assert sent.reply_markup.model_dump() == keyboard.model_dump() and sent.link_preview_options.is_disabled
        document = await bot.send_document(
            ANNA, BufferedInputFile(b"--- a\n+++ b\n", "change.diff"), caption="all",
            reply_parameters=ReplyParameters(message_id=sent.message_id))
        assert document.document.file_name == "change.diff" and document.reply_to_message.message_id == sent.message_id
        assert (await bot.download(document.document)).read() == b"--- a\n+++ b\n"
        in_group = await bot.send_message(GROUP, "for all", disable_notification=True)
        assert in_group.chat.type == "supergroup" and in_group.chat.title == "Operations"
        await refused(bot.send_message(BERT, "x"), TelegramForbiddenError, "can't initiate conversation")
        await refused(bot.send_message(12345, "x"), TelegramBadRequest, "chat not found")
        await refused(bot.send_message(ANNA, "x" * 4097), TelegramBadRequest, "message is too long")

        pressed = control(people, "press", {"chat_id": ANNA, "button": "Approve"})
        control(people, "press", {"chat_id": ANNA, "button": "Reject", "user_id": BERT, "inaccessible": True})
        control(people, "say", {"user_id": ANNA, "text": "/stop now"})
        control(people, "say", {"user_id": BERT, "chat_id": GROUP, "text": "hello"})
        updates = await bot.get_updates(timeout=1)
        kinds = [update.event_type for update in updates]
        assert kinds == ["callback_query", "callback_query", "message", "message"], kinds
        assert updates[0].callback_query.data == "a:1" and updates[0].callback_query.message.text == "Ship 🦀 it?"
        assert updates[0].callback_query.from_user.id == ANNA and not updates[0].callback_query.from_user.is_bot
        assert updates[1].callback_query.message.date == 0 or updates[1].callback_query.message.date.timestamp() == 0
        assert updates[2].message.entities[0].type == "bot_command"
        assert await bot.get_updates(offset=updates[-1].update_id + 1) == []
        assert await bot.answer_callback_query(pressed["callback_query_id"], "Done", show_alert=True)
        assert control(people, f"answers/{pressed['callback_query_id']}")["alert"]

        edited = await bot.edit_message_text("Approved", chat_id=ANNA, message_id=sent.message_id)
        assert edited.edit_date and edited.reply_markup is None
        again = bot.edit_message_text("Approved", chat_id=ANNA, message_id=sent.message_id)
        await refused(again, TelegramBadRequest, "message is not modified")
        marked = await bot.edit_message_reply_markup(chat_id=ANNA, message_id=sent.message_id, reply_markup=keyboard)
        assert marked.reply_markup.model_dump() == keyboard.model_dump()
        assert await bot.delete_message(ANNA, sent.message_id)
        gone = bot.edit_message_text("x", chat_id=ANNA, message_id=sent.message_id)
        await refused(gone, TelegramBadRequest, "message to edit not found")

        first = asyncio.create_task(bot.get_updates(timeout=20))
        await asyncio.sleep(0.3)
        await bot.get_updates(timeout=0)
        await refused(first, TelegramConflictError, "terminated by other getUpdates")

        control(people, "limits", {"per_chat": 1, "per_chat_seconds": 5})
        await bot.send_message(ANNA, "one")
        try:
            await bot.send_message(ANNA, "two")
            raise AssertionError("no flood control")
        except TelegramRetryAfter as flood:
            assert 1 <= flood.retry_after <= 5
        control(people, "limits", "off")
    print(json.dumps({"aiogram": "ok", "updates": len(updates)}))


asyncio.run(run(*sys.argv[1:4]))
